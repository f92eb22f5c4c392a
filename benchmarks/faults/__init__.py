"""What happens when something breaks: real servers are killed, stopped and starved under load, and every answer is checked."""

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.page import faults_page, faults_table
from benchmarks.faults.scenarios import SCENARIOS, FaultSettings, measure_faults

__all__ = ["SCENARIOS", "FaultSettings", "Outcome", "faults_page", "faults_table", "measure_faults"]
