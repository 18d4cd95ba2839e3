import Foundation
import GrapeWire
import Testing

@Suite struct ReplayTests {
  private static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Corpus")

  @Test func everyFolderOfTheCorpusBelongsToADecoder() throws {
    let folders = try FileManager.default.contentsOfDirectory(atPath: Self.corpus.path).filter { !$0.hasPrefix(".") }
    #expect(Set(folders).subtracting(FuzzTarget.all.map(\.name)).isEmpty)
    #expect(Set(FuzzTarget.all.map(\.name)).count == FuzzTarget.all.count)
  }

  @Test(arguments: FuzzTarget.all) func whatHasBeenFoundIsFoundNoMore(_ target: FuzzTarget) throws {
    let folder = Self.corpus.appendingPathComponent(target.name)
    guard FileManager.default.fileExists(atPath: folder.path) else { return }
    for name in try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() {
      let bytes = [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))
      #expect(throws: Never.self, "\(name)") { try target.body(ByteSlice(bytes)) }
    }
  }

  /// Each seed whole, cut off at many places, and damaged at random.
  @Test(arguments: FuzzTarget.all) func damageIsRefusedOrHarmless(_ target: FuzzTarget) throws {
    let number = UInt64.random(in: 0..<1_000_000)
    var random = Seeded(seed: number)
    for (index, seed) in try target.seeds().enumerated() {
      #expect(throws: Never.self, "seed \(index) as it is") { try target.body(ByteSlice(seed)) }
      for size in stride(from: 0, to: seed.count, by: max(1, seed.count / 64)) {
        #expect(throws: Never.self, "seed \(index) cut to \(size)") { try target.body(ByteSlice(Array(seed[..<size]))) }
      }
      guard !seed.isEmpty else { continue }
      for round in 0..<60 {
        var bytes = seed
        for _ in 0..<Int.random(in: 1...4, using: &random) {
          bytes[Int.random(in: bytes.indices, using: &random)] = [
            0, 1, 0x7f, 0x80, 0xff, UInt8.random(in: 0...255, using: &random),
          ]
          .randomElement(using: &random)!
        }
        #expect(throws: Never.self, "seed \(index), random \(number), round \(round)") {
          try target.body(ByteSlice(bytes))
        }
      }
    }
  }
}

extension FuzzTarget: CustomTestStringConvertible {
  var testDescription: String { name }
}

/// SplitMix64: repeatable from its seed.
private struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
