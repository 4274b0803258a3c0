"""crowdtrain: anybody's machine trains anybody's PyTorch model for pay, and nobody has to be trusted."""
