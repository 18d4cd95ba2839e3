internal import CGrapeLinux
internal import CGrapeResources
internal import GrapeCore
internal import GrapeEngine
internal import GrapeWorkers
internal import Glibc

/// How a worker of each runtime is started: program, arguments, environment.
struct LaunchPlanner {
  /// Where workers connect to.
  var socket: String
  /// Folder with the SDKs that the node hands to workers.
  var sdkDirectory: String
  /// For what interpreters want to keep.
  var cacheDirectory: String
  /// The node's own environment.
  var environment: [String: String]

  func launch(_ deployment: Deployment, worker: String, token: String) throws(StatusError) -> WorkerLaunch {
    var variables: [String: String] = [:]
    for name in deployment.profile.inheritEnvironment { variables[name] = environment[name] }
    for variable in deployment.profile.environment { variables[variable.name] = variable.value }
    let path = variables["PATH"] ?? environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
    variables["PATH"] = path
    variables["GRAPE_SOCKET"] = socket
    variables["GRAPE_TOKEN"] = token
    variables["GRAPE_APP"] = deployment.manifest.name.text
    variables["GRAPE_WORKER"] = worker
    let program: String
    var arguments: [String] = []
    switch deployment.manifest.runtime {
    case .python(let entry):
      program = try find("python3", in: path, for: "runtime python")
      arguments = [entry]
      variables["PYTHONPATH"] = [sdkDirectory, variables["PYTHONPATH"]].compactMap(\.self).joined(separator: ":")
      // The package's folder is as it was deployed, and stays so.
      variables["PYTHONPYCACHEPREFIX"] = cacheDirectory + "/python"
    case .swift(let product):
      program = deployment.directory + "/bin/" + product
    case .executable(let command):
      let first = command[0]
      program =
        first.hasPrefix("/")
        ? first : first.contains("/") ? deployment.directory + "/" + first : try find(first, in: path, for: "command")
      arguments = Array(command.dropFirst())
    }
    return WorkerLaunch(
      program: program, arguments: arguments, environment: variables, directory: deployment.directory)
  }

  private func find(_ name: String, in path: String, for purpose: String) throws(StatusError) -> String {
    for folder in path.split(separator: ":") {
      let candidate = folder + "/" + name
      if access(String(candidate), X_OK) == 0 { return String(candidate) }
    }
    throw StatusError(.unavailable, "\(name), needed for \(purpose), is not on the PATH (\(path))")
  }

  /// Writes the SDKs that travel inside the program to the folder that workers read them from.
  static func installSDKs(in directory: String) throws(NodeError) {
    let bytes = UnsafeRawBufferPointer(start: grape_sdk_python_bytes(), count: grape_sdk_python_size)
    try Files.write(bytes, to: directory + "/grape.py")
  }
}
