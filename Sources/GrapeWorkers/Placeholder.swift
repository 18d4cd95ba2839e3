// GrapeWorkers
