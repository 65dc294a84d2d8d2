"""Training: the laptop's base model (`nano`), recipes (`recipe`), and Axolotl as a subprocess (`launch`)."""
