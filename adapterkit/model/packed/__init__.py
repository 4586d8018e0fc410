"""GPT-2's forward over packed rows, of our own: the steps of training and of scoring."""
