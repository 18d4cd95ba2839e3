// GrapeEngine
