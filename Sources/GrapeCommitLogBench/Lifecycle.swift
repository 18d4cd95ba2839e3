import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// How long it takes to open a log.
enum Opening {
  static func run(_ arguments: Arguments) {
    let began = grape_monotonic_ns()
    let driver = Driver(arguments.directory)
    let took = grape_monotonic_ns() - began
    var report = Report()
    report.add("openMilliseconds", Double(took) / 1e6)
    report.add("recoveredBytes", Int(driver.report.bytes))
    report.add("recoveredGroups", Int(driver.report.groups))
    report.add("cuts", driver.report.cuts.count)
    report.addMemory()
    driver.close()
    report.write()
  }
}

/// Appends until it is killed.
enum Victim {
  static func run(_ arguments: Arguments) {
    let batches = Batches.load(arguments.string("batches"))
    let driver = Driver(arguments.directory)
    var durable = 0
    while true {
      durable += driver.append(batches, bytes: 1 << 20, inFlight: 8).bytes
      var report = Report()
      report.add("durableBytes", durable)
      report.write()
    }
  }
}
