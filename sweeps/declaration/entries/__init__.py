"""What a user writes in a sweep file, and what it stands for."""
