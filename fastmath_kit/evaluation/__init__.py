"""How good a model is: metrics with errors, budget sweeps, reports."""
