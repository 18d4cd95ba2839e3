import GrapeCore
import Testing

@Suite struct NamesTests {
  private func appError(_ text: String) -> String? {
    do throws(NameError) { _ = try AppName(text); return nil } catch { return error.message }
  }
  private func eventError(_ text: String) -> String? {
    do throws(NameError) { _ = try EventName(text); return nil } catch { return error.message }
  }
  private func addressError(_ text: String) -> String? {
    do throws(NameError) { _ = try EventAddress(text); return nil } catch { return error.message }
  }

  @Test func goodNamesAreTaken() throws {
    for name in ["a", "flights", "a-1", "a--", String(repeating: "x", count: 63)] {
      #expect(try AppName(name).text == name)
    }
    for name in ["a", "raw.v2", "a_b-c.d", String(repeating: "x", count: 127)] {
      #expect(try EventName(name).text == name)
    }
    let address = try EventAddress("flights@raw.v2")
    #expect(address.app.text == "flights")
    #expect(address.event.text == "raw.v2")
    #expect(address.text == "flights@raw.v2")
  }

  @Test func badNamesSayWhatWouldBeRight() {
    #expect(appError("") == "the application name is empty: write a name such as flights")
    #expect(
      appError("Flights")
        == "application name \"Flights\": it must begin with a lower-case letter, not \"F\", for instance flights")
    #expect(
      appError("my_app")
        == "application name \"my_app\": \"_\" at character 3 is not allowed: use lower-case letters, digits and \"-\", for instance my-app"
    )
    #expect(
      appError("flüge")
        == "application name \"flüge\": \"ü\" at character 3 is not allowed: use lower-case letters, digits and \"-\", for instance flge"
    )
    #expect(appError("1") == "application name \"1\": it must begin with a lower-case letter, not \"1\"")
    #expect(
      appError(String(repeating: "a", count: 64))
        == "application name \"\(String(repeating: "a", count: 64))\" has 64 characters: at most 63 are allowed")
    #expect(
      eventError("a\nb\"\u{1b}")
        == "event name \"a\\nb\\\"\\u{1b}\": \"\\n\" at character 2 is not allowed: use lower-case letters, digits, \"-\", \"_\" and \".\", for instance a-b"
    )
    #expect(eventError(".a")?.hasPrefix("event name \".a\": it must begin with a lower-case letter, not \".\"") == true)
    #expect(
      eventError(String(repeating: "a", count: 128))?.hasSuffix("has 128 characters: at most 127 are allowed") == true)
    #expect(
      addressError("flights") == "\"flights\" is no event address: write APPLICATION@EVENT, for instance flights@raw")
    #expect(
      addressError("@raw") == "event address \"@raw\": the application name is empty: write a name such as flights")
    #expect(addressError("a@") == "event address \"a@\": the event name is empty: write a name such as parsed")
    #expect(addressError("a@b@c")?.contains("\"@\" at character 2 is not allowed") == true)
  }

  @Test func allNamesOfTwoCharactersFollowTheRule() {
    let first = Set("abcdefghijklmnopqrstuvwxyz")
    let rest = first.union("0123456789-")
    for a in 0..<128 {
      for b in 0..<128 {
        let text = String(decoding: [UInt8(a), UInt8(b)], as: UTF8.self)
        let characters = text.unicodeScalars.map { Character($0) }
        let isName = first.contains(characters[0]) && rest.contains(characters[1])
        #expect(((try? AppName(text)) != nil) == isName)
      }
    }
  }

  @Test func topicsFollowFromNames() throws {
    let app = try AppName("flights")
    #expect(app.eventsTopic == "flights.events")
    #expect(app.deadLettersTopic == "flights.dead")
    #expect(AppName(eventsTopic: "flights.events") == app)
    #expect(AppName(eventsTopic: "flights.dead") == nil)
    #expect(AppName(eventsTopic: ".events") == nil)
    #expect(try NodeName("n1").repliesTopic == "_grape.replies.n1")
    #expect(SystemTopic.registry == "_grape.registry")
    #expect(throws: NameError.self) { try NodeName("N1") }
  }
}

@Suite struct QuantityTests {
  @Test(arguments: [
    ("0", Duration.zero), ("250ms", .milliseconds(250)), ("5s", .seconds(5)), ("2m", .seconds(120)),
    ("1h", .seconds(3600)),
    ("1.5s", .milliseconds(1500)), ("1 s", .seconds(1)), ("100us", .microseconds(100)), ("7d", .seconds(604800)),
    ("0.001ms", .microseconds(1)),
  ])
  func durationsAreRead(_ text: String, _ expected: Duration) throws {
    #expect(try DurationText.parse(text) == expected)
  }

  @Test(arguments: [
    "", "s", "5", "-5s", "5 parsecs", "1.s", ".5s", "1e3s", "99999999999999999999s", "9999999999999h", "0.0000001us",
    "5s ", "٣s",
  ])
  func textsThatAreNoDurationsAreRefused(_ text: String) {
    #expect(throws: QuantityError.self) { try DurationText.parse(text) }
  }

  @Test(arguments: [
    ("0", 0), ("262144", 262144), ("64KiB", 65536), ("10MiB", 10 << 20), ("1.5GiB", 3 << 29), ("2 kB", 2000),
    ("1MB", 1_000_000), ("5B", 5),
  ])
  func sizesAreRead(_ text: String, _ expected: Int) throws {
    #expect(try ByteCountText.parse(text) == expected)
  }

  @Test(arguments: ["", "KiB", "-1", "5X", "0.3B", "99999999TiB", "1..5MiB"])
  func textsThatAreNoSizesAreRefused(_ text: String) {
    #expect(throws: QuantityError.self) { try ByteCountText.parse(text) }
  }

  @Test func whatIsFormattedIsReadBack() throws {
    for milliseconds in [0, 1, 999, 1000, 60_000, 90_000, 3_600_000, 86_400_000] {
      let duration = Duration.milliseconds(milliseconds)
      #expect(try DurationText.parse(DurationText.format(duration)) == duration)
    }
    for bytes in [0, 1, 1023, 1024, 1025, 10 << 20, 3 << 30] {
      #expect(try ByteCountText.parse(ByteCountText.format(bytes)) == bytes)
    }
    #expect(DurationText.format(.seconds(90)) == "90s")
    #expect(ByteCountText.format(256 << 10) == "256KiB")
  }

  @Test func longDurationsStayWithinBounds() {
    #expect(Duration.seconds(Int64.max).wholeNanoseconds == .max)
    #expect(Duration.seconds(Int64.min).wholeNanoseconds == .min)
    #expect(Duration.milliseconds(1999).wholeMilliseconds == 1999)
  }
}

@Suite struct SuggestionTests {
  @Test func theNearestIsFoundAndTheFarIsNot() {
    #expect(Suggestion.nearest(to: "parset", among: ["raw", "parsed", "parser"]) == "parsed")
    #expect(Suggestion.nearest(to: "slotz", among: ["slots", "name"]) == "slots")
    #expect(Suggestion.nearest(to: "emti", among: ["emit"]) == "emit")
    #expect(Suggestion.nearest(to: "xyz", among: ["abc"]) == nil)
    #expect(Suggestion.nearest(to: "a", among: ["b"]) == nil)
  }
}
