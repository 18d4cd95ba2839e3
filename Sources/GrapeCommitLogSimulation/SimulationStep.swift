/// What may happen next in a simulation.
enum SimulationStep: Int, CaseIterable {
  case commitSmall, commitLarge, commitHuge, commitMany, commitOffsets, commitBadly
  case createTopic, alterTopic, deleteTopic, deleteRecords, deleteGroup
  case read, readByTime, lookAround, checkEverything, verify
  case watch, cancelWatch
  case stepWriter, stepReader, stepHousekeeper, stepCleaner, tick
  case changeDeputy, assist
  case advanceClock
  case closeAndOpen, killAndOpen, losePowerAndOpen
  case armDeath, armFault, fillDisk, freeDisk, decay

  /// How often it happens, beside the others.
  var weight: Int {
    switch self {
    case .commitSmall: 120
    case .commitMany: 60
    case .commitLarge: 30
    case .commitHuge: 3
    case .commitOffsets: 20
    case .commitBadly: 8
    case .createTopic: 12
    case .alterTopic: 6
    case .deleteTopic: 4
    case .deleteRecords: 8
    case .deleteGroup: 2
    case .read: 60
    case .readByTime: 15
    case .lookAround: 15
    case .checkEverything: 2
    case .verify: 2
    case .watch: 20
    case .cancelWatch: 5
    case .stepWriter: 140
    case .stepReader: 50
    case .stepHousekeeper: 30
    case .stepCleaner: 30
    case .tick: 10
    case .changeDeputy: 6
    case .assist: 30
    case .advanceClock: 10
    case .closeAndOpen: 4
    case .killAndOpen: 4
    case .losePowerAndOpen: 5
    case .armDeath: 6
    case .armFault: 5
    case .fillDisk: 1
    case .freeDisk: 2
    case .decay: 2
    }
  }

  /// Weights for one run: some steps often, some never, so that runs differ from each other.
  static func weights(_ random: inout SimulationRandom) -> [Int] {
    allCases.map { step in
      switch step {
      // Without these nothing would ever get done.
      case .commitSmall, .createTopic, .stepWriter: step.weight * random.pick([1, 1, 2])
      default: step.weight * random.pick([0, 1, 1, 1, 3])
      }
    }
  }
}
