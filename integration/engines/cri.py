#!/usr/bin/python3
"""A client of the Container Runtime Interface: `cri.py METHOD [REQUEST]`; crictl is not in Debian.

The request is JSON, and so is the answer on stdout. ExecSync gives what was printed and the exit status, as a shell
does. Ends with 125 and the message if the call fails. CRI_ADDRESS is the socket, CRI_PYTHON the directory in which
cri.proto was compiled.
"""
import os
import sys

import grpc
from google.protobuf import json_format

sys.path.insert(0, os.environ["CRI_PYTHON"])
import cri_pb2 as cri  # noqa: E402  its directory is known only now

# Each method with its request and its answer.
METHODS = {
    "Version": (cri.Nothing, cri.Version),
    "Status": (cri.Nothing, cri.Status),
    "RunPodSandbox": (cri.RunPodSandbox, cri.PodSandboxId),
    "StopPodSandbox": (cri.PodSandboxId, cri.Nothing),
    "RemovePodSandbox": (cri.PodSandboxId, cri.Nothing),
    "PodSandboxStatus": (cri.PodSandboxId, cri.PodSandboxStatus),
    "ListPodSandbox": (cri.Nothing, cri.ListPodSandbox),
    "CreateContainer": (cri.CreateContainer, cri.ContainerId),
    "StartContainer": (cri.ContainerId, cri.Nothing),
    "StopContainer": (cri.StopContainer, cri.Nothing),
    "RemoveContainer": (cri.ContainerId, cri.Nothing),
    "ListContainers": (cri.Nothing, cri.ListContainers),
    "ContainerStatus": (cri.ContainerId, cri.ContainerStatus),
    "UpdateContainerResources": (cri.UpdateContainerResources, cri.Nothing),
    "ReopenContainerLog": (cri.ContainerId, cri.Nothing),
    "ExecSync": (cri.ExecSync, cri.ExecSyncResult),
    "ContainerStats": (cri.ContainerId, cri.ContainerStats),
}


def main():
    method = sys.argv[1]
    request, answer = METHODS[method]
    message = json_format.Parse(sys.argv[2] if len(sys.argv) > 2 else "{}", request())
    with grpc.insecure_channel("unix://" + os.environ["CRI_ADDRESS"]) as channel:
        call = channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            said = call(message, timeout=50)
        except grpc.RpcError as error:
            print(f"{method}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 125
    if method == "ExecSync":
        sys.stdout.buffer.write(said.stdout)
        sys.stderr.buffer.write(said.stderr)
        return said.exit_code
    print(json_format.MessageToJson(said, including_default_value_fields=True, preserving_proto_field_name=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
