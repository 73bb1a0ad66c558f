"""What a bundle keeps of each trained part."""
