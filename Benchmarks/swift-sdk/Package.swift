// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "benchmark-swift-sdk",
  dependencies: [.package(name: "grape", path: "../..")],
  targets: [
    .executableTarget(
      name: "sdk-bench",
      dependencies: [.product(name: "Grape", package: "grape")])
  ],
  swiftLanguageModes: [.v6]
)
