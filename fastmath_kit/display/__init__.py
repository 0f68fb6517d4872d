"""What a person sees: figures and notebook views."""
