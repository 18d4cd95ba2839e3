// GrapePackages
