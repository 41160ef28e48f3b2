"""What a group adds around its trainings."""
