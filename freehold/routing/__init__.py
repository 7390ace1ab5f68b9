"""Which deployment answers?"""
