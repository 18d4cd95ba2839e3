/// What an application is: its name, how its handlers are started, which events it takes and which it emits.
///
/// The text form is `grape.yaml` (docs/manifest.md). A `Manifest` may be built in any state; `problems()` says
/// what is wrong with it.
public struct Manifest: Hashable, Sendable {
  /// The version of the format that this code reads.
  public static let formatVersion = 1
  /// Numbers of partitions that an application may have.
  public static let partitionBounds = 1...1024
  /// Most slots, and most signals, of one application.
  public static let maximumSlots = 1000
  /// Most topics that one application reads beside its own.
  public static let maximumSources = 256
  /// Most names in one list of emitted names or targets.
  public static let maximumEmits = 256

  public var name: AppName
  /// For people; empty if there is none.
  public var description: String
  public var runtime: Runtime
  /// Partitions of the input topic: the most that can be worked on at once. Fixed once deployed.
  public var partitions: Int
  /// In the order of the file.
  public var slots: [Slot]
  /// In the order of the file.
  public var signals: [Signal]
  /// Topics that are not Grape's and whose records come to slots of this application. In the order of the file.
  public var sources: [Source]
  /// Patterns of the files that belong to the package; empty: all.
  public var include: [String]
  /// Patterns of files that do not, applied after the default ones.
  public var exclude: [String]
  /// An object, handed to the workers as it is.
  public var config: JSONValue
  public var profile: Profile

  public init(
    name: AppName, description: String = "", runtime: Runtime, partitions: Int = 4, slots: [Slot],
    signals: [Signal] = [], sources: [Source] = [], include: [String] = [], exclude: [String] = [],
    config: JSONValue = .object([]),
    profile: Profile = Profile()
  ) {
    self.name = name
    self.description = description
    self.runtime = runtime
    self.partitions = partitions
    self.slots = slots
    self.signals = signals
    self.sources = sources
    self.include = include
    self.exclude = exclude
    self.config = config
    self.profile = profile
  }

  /// How a worker is started.
  public enum Runtime: Hashable, Sendable {
    /// A Python script, by its path in the package.
    case python(entry: String)
    /// A Swift executable product; its binary is `bin/PRODUCT` in the package.
    case swift(product: String)
    /// Any program that speaks the worker protocol: argument vector, whose first element is a path in the package
    /// (if it has a `/`) or a program on `PATH`.
    case executable(command: [String])

    /// Names as the manifest writes them.
    public static let names = ["python", "swift", "executable"]

    /// The name as the manifest writes it.
    public var name: String {
      switch self {
      case .python: "python"
      case .swift: "swift"
      case .executable: "executable"
      }
    }

    /// The file of the package that is started; nil if that is a program on `PATH`.
    public var file: String? {
      switch self {
      case .python(let entry): entry
      case .swift(let product): "bin/" + product
      case .executable(let command):
        if let first = command.first, first.utf8.contains(UInt8(ascii: "/")) {
          first.hasPrefix("./") ? String(first.dropFirst(2)) : first
        } else {
          nil
        }
      }
    }
  }

  /// A named entry: events of its name are handled by the handler of its name.
  public struct Slot: Hashable, Sendable {
    public var name: EventName
    public var description: String
    /// What its handler may emit. Each name must resolve.
    public var emits: [Target]
    /// What its handler may emit if it is there; if it is not, the emitted event goes nowhere.
    public var optional: [Target]

    public init(name: EventName, description: String = "", emits: [Target] = [], optional: [Target] = []) {
      self.name = name
      self.description = description
      self.emits = emits
      self.optional = optional
    }
  }

  /// A name that handlers emit without knowing who listens: each event goes to all slots and topics connected.
  public struct Signal: Hashable, Sendable {
    public var name: EventName
    public var description: String
    /// Slots of this application or of others.
    public var slots: [Target]
    /// Slots that are connected if they are there.
    public var optional: [Target]
    /// Topics that are not Grape's: they get the event as a plain record, without Grape's headers.
    public var topics: [TopicName]

    public init(
      name: EventName, description: String = "", slots: [Target] = [], optional: [Target] = [],
      topics: [TopicName] = []
    ) {
      self.name = name
      self.description = description
      self.slots = slots
      self.optional = optional
      self.topics = topics
    }
  }

  /// The name of an emitted event.
  public enum Target: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// A signal or slot of the application itself: `parsed`.
    case local(EventName)
    /// A slot by its full address: `stats@flight`.
    case address(EventAddress)

    /// Reads `event` or `app@event`.
    public init(_ text: String) throws(NameError) {
      if text.utf8.contains(UInt8(ascii: "@")) {
        self = .address(try EventAddress(text))
      } else {
        self = .local(try EventName(text))
      }
    }

    /// As the manifest writes it, which is also the name that handlers emit.
    public var description: String {
      switch self {
      case .local(let name): name.text
      case .address(let address): address.text
      }
    }

    public static func < (left: Target, right: Target) -> Bool { left.description < right.description }
  }

  /// The slot of that name.
  public func slot(_ name: EventName) -> Slot? { slots.first { $0.name == name } }
  /// The signal of that name.
  public func signal(_ name: EventName) -> Signal? { signals.first { $0.name == name } }
}
