import Glibc

// How fast one worker of the Swift SDK is: a node that does nothing but feed it full deliveries and count results.
//
//     swift run -c release --package-path Benchmarks/swift-sdk sdk-bench [HANDLER [SECONDS]]

if getenv("GRAPE_SOCKET") != nil {
  try await worker(CommandLine.arguments.dropFirst().first ?? "uppercase").run()
} else {
  let chosen = Array(CommandLine.arguments.dropFirst())
  let seconds = chosen.count > 1 ? Double(chosen[1]) ?? 3 : 3
  for handler in chosen.isEmpty ? handlers : [chosen[0]] {
    let figures = try measure(handler, seconds: seconds)
    print(figures)
  }
}
