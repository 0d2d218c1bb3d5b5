"""What tests need: a clock to move by hand, an application without a port, and the contract of brokers."""

from tidewire.testing.broker_contract import BROKER_CONTRACT, BrokerBench
from tidewire.testing.clock import ManualClock
from tidewire.testing.probe import Probe, ProbeTimeout

__all__ = ["BROKER_CONTRACT", "BrokerBench", "ManualClock", "Probe", "ProbeTimeout"]
