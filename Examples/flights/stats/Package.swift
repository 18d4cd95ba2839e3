// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "stats",
  dependencies: [
    .package(name: "grape", path: "../../..")
  ],
  targets: [
    // The figures: plain Swift, tested without a node.
    .target(name: "FlightStats"),
    // The slots: what the application does with its events.
    .executableTarget(
      name: "stats",
      dependencies: ["FlightStats", .product(name: "Grape", package: "grape")]),
    .testTarget(name: "FlightStatsTests", dependencies: ["FlightStats"]),
  ],
  swiftLanguageModes: [.v6]
)
