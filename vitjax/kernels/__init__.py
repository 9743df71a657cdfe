"""Fast forms of what XLA does badly; each says where its plain reference is."""
