// GrapeWire
