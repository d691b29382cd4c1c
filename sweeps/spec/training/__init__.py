"""What is trained, and how a step is made."""
