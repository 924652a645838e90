"""What was measured, how, against whom: each file is a script that anyone can run."""
