// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "benchmark-apps",
  products: [
    .executable(name: "uppercase", targets: ["uppercase"]),
    .executable(name: "counts", targets: ["counts"]),
    .executable(name: "tally", targets: ["tally"]),
  ],
  dependencies: [
    .package(name: "grape", path: "../../..")
  ],
  targets: [
    .executableTarget(name: "uppercase", dependencies: [.product(name: "Grape", package: "grape")]),
    .executableTarget(name: "counts", dependencies: [.product(name: "Grape", package: "grape")]),
    .executableTarget(name: "tally", dependencies: [.product(name: "Grape", package: "grape")]),
  ],
  swiftLanguageModes: [.v6]
)
