"""Many runs: methods x seeds as a plan, executed once, and paired statistics that end in a verdict."""
