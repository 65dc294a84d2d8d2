"""Training: the laptop's base model (`nano`), recipes (`recipe`, `validator`), what they come to before anything is
paid (`models`, `hardware`, `memory`, `budget`, `preflight`, `fix`), and Axolotl as a subprocess (`launch`)."""
