import GrapeStore
import Testing
