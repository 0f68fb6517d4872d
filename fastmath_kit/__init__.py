"""From an open reasoning model to a math-olympiad submission on Kaggle.

The package is a set of small functions that notebooks call; see the README for the map. Importing
it loads nothing heavy: import the module you need, such as `fastmath_kit.training.sft`.
"""

__version__ = "0.1.0"
