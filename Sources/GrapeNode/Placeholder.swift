// GrapeNode
