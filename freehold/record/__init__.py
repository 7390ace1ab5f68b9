"""What happened, and what did it use?"""
