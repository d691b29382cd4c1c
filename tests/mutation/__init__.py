"""Faults planted in what decides results and recovery, and whether the tests notice them."""
