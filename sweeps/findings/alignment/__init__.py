"""What becomes of alignment under a control: which of profile and degradation falls."""
