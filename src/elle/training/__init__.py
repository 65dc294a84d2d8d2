"""Training: the laptop's base model (`nano`), a recipe fitted to this machine (`resolution`), Axolotl as a subprocess
(`launch`, and `plugin` inside it), and what became of it (`history`, `health`, `checkpoints`, `diagnosis`)."""
