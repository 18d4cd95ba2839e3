// GrapeTestKit
