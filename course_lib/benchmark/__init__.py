"""A small fair benchmark: every optimizer of the registry on one language model, with equal budgets and seeds."""
