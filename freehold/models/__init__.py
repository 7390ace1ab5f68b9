"""The path of a model: from somebody's file to something that answers."""
