"""Everything that touches Kaggle: paths, the gateway, the submission."""
