// GrapeLog
