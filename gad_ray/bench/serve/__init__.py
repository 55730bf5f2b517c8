"""The critic's endpoint under load: throughput, latency, peers, swaps with lost replicas, overload.

gad-ray bench serve ──► study ──► a part ──► servers (processes of their own) ◄── load (this process)
                          │                                                         │ checked by checker
                          └──► <part>.json, serve.json ──► tables ──► page
"""
