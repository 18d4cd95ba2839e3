import GrapeWire

/// One decoder, and what must hold of it whatever bytes it is given: it reads nothing outside them, never traps, and either
/// refuses them or returns a value that keeps its promises. `body` throws `BrokenPromise` if it does not.
///
/// To add one: a file in Decoders with a `static let`, and its name in `all`. Tests replay Corpus/NAME and the seeds;
/// `scripts/fuzz.sh NAME` searches for more.
struct FuzzTarget: Sendable {
  /// As on the command line, and of the folder in Corpus.
  let name: String
  /// Good inputs, from which the search starts.
  let seeds: @Sendable () throws -> [[UInt8]]
  /// The bytes end where the memory that may be read ends.
  let body: @Sendable (ByteSlice) throws -> Void

  init(
    _ name: String, seeds: @escaping @Sendable () throws -> [[UInt8]],
    body: @escaping @Sendable (ByteSlice) throws -> Void
  ) {
    self.name = name
    self.seeds = seeds
    self.body = body
  }

  static let all: [FuzzTarget] = [
    recordBatch, eventBatch, sourceBatch, eventHeaders, frame, clientRequests, clientAnswers, workerFrames, laneNotes,
    commitGroup, segmentHeader, checkpoint, indexFile, json, names, manifest, profile, glob, archive,
  ]
}

/// A decoder did not keep a promise.
struct BrokenPromise: Error, CustomStringConvertible {
  let description: String
}

/// Throws if `condition` is false.
func promise(_ condition: Bool, _ what: @autoclosure () -> String) throws {
  guard condition else { throw BrokenPromise(description: what()) }
}

/// The value of `body`; nil if it refuses with a `Refusal`. Any other error goes on.
func taken<Value, Refusal: Error>(_: Refusal.Type, _ body: () throws -> Value) throws -> Value? {
  do {
    return try body()
  } catch is Refusal {
    return nil
  }
}

/// The value of `body`; nil if it refuses with a `WireError`. Any other error goes on.
func taken<Value>(_ body: () throws -> Value) throws -> Value? { try taken(WireError.self, body) }

/// Reads every byte, so that a range that leads outside is noticed.
func touch(_ bytes: UnsafeRawBufferPointer?) {
  guard let bytes else { return }
  var sum: UInt8 = 0
  for byte in bytes { sum = sum &+ byte }
  withExtendedLifetime(sum) {}
}
