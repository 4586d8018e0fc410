"""Adapters that leave this machine and come to it: packed files, PEFT folders, the Hub."""
