// GrapeCommitLog
