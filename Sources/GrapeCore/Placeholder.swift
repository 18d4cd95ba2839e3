// GrapeCore
