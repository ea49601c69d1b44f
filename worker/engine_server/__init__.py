"""`python -m worker engine-server`: one model of the models file, served to other processes."""
