"""How good versions are: on their own unseen text or any other, the base beside each."""
