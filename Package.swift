// swift-tools-version: 6.2
import PackageDescription

// Layers, lowest first. A target may import only what stands above it in this file; docs/architecture.md
// says what each one owns. Heavy dependencies appear only on the targets that need them.

let package = Package(
  name: "grape",
  products: [
    .library(name: "Grape", targets: ["Grape"]),
    .library(name: "GrapeLog", targets: ["GrapeLog"]),
    .library(name: "GrapeKafka", targets: ["GrapeKafka"]),
    .library(name: "GrapeStore", targets: ["GrapeStore"]),
    .library(name: "GrapeTestKit", targets: ["GrapeTestKit"]),
    .executable(name: "grape", targets: ["GrapeCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", exact: "0.2.0"),
    .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
  ],
  targets: [
    // C: system libraries and the Linux calls that the Glibc module lacks.
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
    .systemLibrary(name: "CRDKafka", pkgConfig: "rdkafka", providers: [.apt(["librdkafka-dev"])]),
    .target(name: "CGrapeLinux"),
    .target(name: "CGrapeResources"),

    // Formats and rules: no I/O.
    .target(name: "GrapeWire", dependencies: ["CGrapeLinux", "CZstd"]),
    .target(name: "GrapeCore", dependencies: ["GrapeWire"]),

    // State: formats, and the map of entries that nodes write and workers read.
    .target(name: "GrapeState", dependencies: ["GrapeWire", "CLMDB"]),

    // The message-passing layer.
    .target(name: "GrapeLog", dependencies: ["GrapeWire", "GrapeCore", "CGrapeLinux"]),
    // State stores, and how they follow their changelogs.
    .target(name: "GrapeStore", dependencies: ["GrapeState", "GrapeLog", "GrapeWire", "CGrapeLinux"]),
    .target(
      name: "GrapeCommitLog",
      dependencies: ["GrapeLog", "GrapeCore", "GrapeWire", "CGrapeLinux"]),
    // The log on Apache Kafka.
    .target(name: "GrapeKafka", dependencies: ["GrapeLog", "GrapeWire", "CGrapeLinux", "CRDKafka"]),
    .executableTarget(name: "GrapeKafkaBench", dependencies: ["GrapeKafka", "GrapeLog", "GrapeWire", "CRDKafka"]),
    .executableTarget(
      name: "GrapeCommitLogBench", dependencies: ["GrapeCommitLog", "GrapeLog", "GrapeWire", "CGrapeLinux"]),
    .target(name: "GrapeTestKit", dependencies: ["GrapeLog", "GrapeStore", "GrapeCore", "GrapeWire"]),
    // The log on a simulated disk, step by step from a seed, beside a model that checks it.
    .target(
      name: "GrapeCommitLogSimulation", dependencies: ["GrapeCommitLog", "GrapeLog", "GrapeTestKit", "GrapeWire"]),

    // What an application's author imports.
    .target(name: "Grape", dependencies: ["GrapeWire", "GrapeCore", "GrapeState", "CGrapeLinux"]),

    // The node, from the inside out.
    .target(name: "GrapeReactor", dependencies: ["CGrapeLinux", "GrapeWire"]),
    .target(
      name: "GrapePackages",
      dependencies: [
        "GrapeCore", "GrapeWire", "CZstd", "CZlib",
        .product(name: "Crypto", package: "swift-crypto"), "Yams",
      ]),
    .target(
      name: "GrapeWorkers",
      dependencies: [
        "GrapeReactor", "GrapeCore", "GrapeWire", "CGrapeLinux",
        .product(name: "Logging", package: "swift-log"),
      ]),
    .target(
      name: "GrapeEngine",
      dependencies: [
        "GrapeLog", "GrapeStore", "GrapeWorkers", "GrapeReactor", "GrapeCore", "GrapeWire", "CGrapeLinux",
        .product(name: "Histogram", package: "hdrhistogram-swift"),
        .product(name: "Logging", package: "swift-log"),
      ]),
    .target(
      name: "GrapeNode",
      dependencies: [
        "GrapeEngine", "GrapeStore", "GrapeWorkers", "GrapePackages", "GrapeCommitLog", "GrapeKafka", "GrapeLog",
        "GrapeReactor", "GrapeCore", "GrapeWire", "CGrapeLinux", "CGrapeResources",
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
      ]),
    // Engines, state and log of a node in the same way, with simulated workers.
    .target(
      name: "GrapeEngineSimulation",
      dependencies: [
        "Grape", "GrapeEngine", "GrapeStore", "GrapeState", "GrapeWorkers", "GrapeReactor", "GrapeCommitLogSimulation",
        "GrapeCommitLog", "GrapeLog", "GrapeCore", "GrapeWire",
        .product(name: "Logging", package: "swift-log"),
      ]),
    .executableTarget(name: "GrapeSimulator", dependencies: ["GrapeCommitLogSimulation", "GrapeEngineSimulation"]),
    .executableTarget(
      name: "GrapeCLI",
      dependencies: [
        "Grape", "GrapeNode", "GrapePackages", "GrapeCommitLog", "GrapeKafka", "GrapeLog", "GrapeCore", "GrapeWire",
        "CGrapeResources", "CGrapeLinux", "CZstd",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
      ]),

    .testTarget(name: "GrapeWireTests", dependencies: ["GrapeWire"], resources: [.copy("Golden")]),
    .testTarget(
      name: "GrapeStoreTests", dependencies: ["GrapeStore", "GrapeState", "GrapeTestKit", "GrapeLog", "GrapeWire"]),
    .testTarget(name: "GrapeStateTests", dependencies: ["GrapeState", "GrapeWire"]),
    .testTarget(name: "GrapeCoreTests", dependencies: ["GrapeCore", "GrapeWire"]),
    // Appends until it is killed; the crash test's victim.
    .executableTarget(
      name: "GrapeLogCrashWriter", dependencies: ["GrapeCommitLog", "GrapeLog", "GrapeTestKit", "GrapeWire"],
      path: "Tests/GrapeLogCrashWriter"),
    .testTarget(
      name: "GrapeLogTests",
      dependencies: [
        "GrapeLog", "GrapeCommitLog", "GrapeTestKit", "GrapeCore", "GrapeWire", "GrapeLogCrashWriter", "CGrapeLinux",
        "GrapeCommitLogSimulation",
      ]),
    // Against a broker of their own, or the one that GRAPE_KAFKA names.
    .testTarget(
      name: "GrapeKafkaTests",
      dependencies: ["GrapeKafka", "GrapeLog", "GrapeTestKit", "GrapeWire", "CGrapeLinux", "CRDKafka"]),
    .testTarget(
      name: "GrapePackagesTests", dependencies: ["GrapePackages", "GrapeCore", "GrapeWire"]),
    .testTarget(
      name: "GrapeClientTests",
      dependencies: [
        "Grape", "GrapeCLI", "GrapeCore", "GrapeWire", "CGrapeLinux",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], path: "Tests/ClientTests"),
    .testTarget(name: "GrapeTests", dependencies: ["Grape", "GrapeCore", "GrapeState", "GrapeWire"]),
    .testTarget(
      name: "GrapeEngineTests",
      dependencies: [
        "GrapeEngine", "GrapeStore", "GrapeWorkers", "GrapeReactor", "GrapeTestKit", "GrapeLog", "GrapeCore",
        "GrapeWire",
      ]),
    .testTarget(
      name: "GrapeNodeTests",
      dependencies: [
        "GrapeNode", "GrapeEngine", "GrapeReactor", "GrapePackages", "GrapeKafka", "GrapeTestKit", "GrapeLog",
        "GrapeCore", "GrapeWire",
        .product(name: "Logging", package: "swift-log"),
      ]),
    .testTarget(
      name: "GrapeEngineSimulationTests", dependencies: ["GrapeEngineSimulation", "GrapeCommitLogSimulation"]),
  ],
  swiftLanguageModes: [.v6]
)

// What is tried on every decoder: tests that replay what has been found; with GRAPE_FUZZ set a program for libFuzzer,
// which scripts/fuzz.sh builds.
let fuzzed: [Target.Dependency] = [
  "Grape", "GrapeNode", "GrapeEngine", "GrapePackages", "GrapeCommitLog", "GrapeLog", "GrapeCore", "GrapeWire",
]
package.targets.append(
  Context.environment["GRAPE_FUZZ"] == nil
    ? .testTarget(name: "GrapeFuzzTests", dependencies: fuzzed, path: "Tests/Fuzz", exclude: ["Driver", "Corpus"])
    : .executableTarget(name: "GrapeFuzz", dependencies: fuzzed, path: "Tests/Fuzz", exclude: ["Replay", "Corpus"]))

// One set of settings for every Swift target.
for target in package.targets where target.type != .system && !target.name.hasPrefix("CGrape") {
  target.swiftSettings = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  ]
}
