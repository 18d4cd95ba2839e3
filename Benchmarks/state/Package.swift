// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "benchmark-state",
  dependencies: [.package(name: "grape", path: "../..")],
  targets: [
    .target(name: "CRawState", linkerSettings: [.linkedLibrary("lmdb")]),
    .executableTarget(
      name: "state-bench",
      dependencies: ["CRawState", .product(name: "Grape", package: "grape")]),
  ],
  swiftLanguageModes: [.v6]
)
