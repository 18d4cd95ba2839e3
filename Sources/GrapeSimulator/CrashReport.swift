#if canImport(Glibc)
  import Glibc
#endif

/// Names the seeds under way when the program traps, which no other message would.
enum CrashReport {
  // Written by each job in a place of its own, and read by the handler of a signal that ends the program.
  nonisolated(unsafe) private static var seeds: UnsafeMutablePointer<UInt64>?
  nonisolated(unsafe) private static var jobs = 0

  static func install(jobs: Int) {
    seeds = .allocate(capacity: jobs)
    seeds!.initialize(repeating: 0, count: jobs)
    Self.jobs = jobs
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] {
      signal(number) { number in
        CrashReport.write()
        signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  static func running(_ seed: UInt64, job: Int) { seeds?[job] = seed }

  /// Nothing in here allocates: the program may have died within the allocator.
  private static func write() {
    say("the program trapped; seeds under way:")
    for job in 0..<jobs {
      say(" ")
      withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
        var rest = seeds?[job] ?? 0
        var first = 20
        repeat {
          first -= 1
          digits[first] = UInt8(ascii: "0") + UInt8(rest % 10)
          rest /= 10
        } while rest > 0
        _ = Glibc.write(2, digits.baseAddress! + first, 20 - first)
      }
    }
    say("\n")
  }

  private static func say(_ text: StaticString) { _ = Glibc.write(2, text.utf8Start, text.utf8CodeUnitCount) }
}
