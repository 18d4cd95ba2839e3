// GrapeReactor
